"""An imitation of ProjectX's Gateway API with one simulated account."""
