"""The run room: which task next, who computes it, what is done. The only room that knows Dask."""
