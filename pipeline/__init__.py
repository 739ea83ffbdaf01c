"""sam4em's pipeline: whole electron-microscopy volumes, block by block, on a Dask cluster."""

__version__ = "0.1.0"
