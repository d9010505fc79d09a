"""Language models behind one small protocol: local files, servers, and whatever ComfyUI has loaded."""
