"""Ports for programs that cannot be given port 0; the rigs of many models have blocks of their own above these."""

from __future__ import annotations

from bioproxy.engines.launch import free_port

__all__ = ["free_port"]
