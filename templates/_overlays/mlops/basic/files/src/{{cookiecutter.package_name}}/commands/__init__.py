"""The commands of the command line, a module for each stage of a model's life."""

from . import predict, publish, serve, train, tune

MODULES = (train, tune, serve, predict, publish)
