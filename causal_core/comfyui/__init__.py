"""A real ComfyUI, run from outside: found or fetched (`locate`), started headless (`server`), spoken to over HTTP and
websocket (`client`), given workflows as the editor saves them (`convert`). Nothing here imports ComfyUI.
"""
