"""The model core of sam4em: SAM2 with a 3D or signed-distance memory for electron-microscopy volumes.

    segmenter (numpy door) | export > checkpoint | propagate > rings > blocks | field > delta > official | lora
    > neighborhood > model > encoder | adapter | memory_volume | memory_sdf | decoder | unet3d
    > tiles > patches > axis | header > sdf | config > errors

It knows no store and no scheduler. Importing the package imports neither torch nor sam2:
`config`, `errors`, `header`, `axis`, `patches`, `sdf` and `tiles` are torch-free by design; the rest is imported by
name where it is needed.
"""
