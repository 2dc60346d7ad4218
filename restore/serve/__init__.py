"""The HTTP server: the API of `restore serve`, and the page of `restore open`.

The server process decodes no image and loads no network. Child processes do (`workers`), so that a file that crashes
its decoder costs one request. Import from the modules: this file loads none of them.
"""
