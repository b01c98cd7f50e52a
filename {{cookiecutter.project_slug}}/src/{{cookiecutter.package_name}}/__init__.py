"""Data flows one way: config → task → training → experiments → bundle → serving."""
