"""A worked example of a broker plugin for FKS."""
