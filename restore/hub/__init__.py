"""Fetch weights from a model hub or an address, and push weights to a hub. Only on request; nothing else downloads."""

import os

# The hub's library reads it when it is imported: nothing is asked of the hub but the model.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
