"""Thin shells around the engines: read the world, ask an engine, write once."""
