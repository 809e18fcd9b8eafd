"""What a newcomer sees first: small models that the project trained, and a study that needs no network and no key."""

from fusion.demo._pools import POOLS, pool_file
from fusion.demo._simulated import PRICES, simulated_table

__all__ = ["POOLS", "PRICES", "pool_file", "simulated_table"]
