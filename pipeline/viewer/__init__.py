"""Look at volumes: one local server for Neuroglancer and the data, screenshots, an overview picture."""
