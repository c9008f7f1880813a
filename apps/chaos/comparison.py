"""The same kill -9 of LLM workers without a supervisor, to compare with: plain members of the group, no standby."""

from __future__ import annotations
