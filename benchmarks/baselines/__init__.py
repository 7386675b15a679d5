"""What accepting is compared with: the least a service can do, and the plain Django way."""
