"""The commands of the command line, a module for each stage of a model's life."""

from . import serve, train

MODULES = (train, serve)
