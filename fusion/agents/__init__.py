"""Who answers: agents, the pools they form, and engines (a plug-in package)."""

from fusion.agents._agent import Agent
from fusion.agents._pool import AgentPool

__all__ = ["Agent", "AgentPool"]
