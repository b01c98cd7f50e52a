"""Data flows one way: config → task → training → experiments → bundle → serving."""

import os

# ONNX Runtime reports its use to its maker unless this is set before it is imported: it looks a
# name up and keeps a device id and events in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
