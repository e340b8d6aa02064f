"""3D segmentation of medical images: from a folder of cases to patches and whole volumes.

Where the data side is, from the files outwards:

    cases, label_map                        one case and its files; what the values of a label file mean
    segmentation_data (msd, brats, …)       settings of the data, one layout of folders a file
    splits (fraction, folds, …)             a kind that other packages can extend: who is trained on, who is held out
    inspection                              what `check --data` says, without opening what it need not
    preprocessing, resampling, cache        from a case to an array on the disk, and back to its own voxel grid
    patches, augmentation                   from arrays to what a step sees
    live_segmentation, workers              what the loop trains on

Conventions, everywhere: arrays are (x, y, z) as nibabel reads them, with channels or classes first; spacings are in mm
in that order; the background is value 0 of a label map, and class ``classes[i]`` is value i + 1.
"""
