"""The model core of sam4em: SAM2 with 3D memory for electron-microscopy volumes.

    segmenter (numpy door) | export > checkpoint | propagate > delta > official | lora > model | tiles > encoder
    | adapter | memory_volume | decoder > header > config > errors

It knows no store and no scheduler. Importing the package imports neither torch nor sam2:
`config`, `errors`, `header` and `tiles` are torch-free by design, the rest is imported by name where it is needed.
"""
