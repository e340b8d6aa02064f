"""3D segmentation of medical images: from a folder of cases to patches and whole volumes.

Where things are, from the ground up; what one component of a room shares with the others is its ``kind``, and what the
settings in ``x`` put to work is ``x_live``:

    sizes       what every room may use
    files/      single files: NIfTI, and what is remembered of their content
    splits/     which cases are trained on, and which are held out: a kind that other packages can extend
    cases/      one case and its files, what the values of a label mean, and made-up cases
    preparing/  from a case to the grid that the network works on and back, and the cache that keeps prepared cases
    patches/    from prepared cases to the batches that a step sees
    data/       the data of a run: their kind, and the layouts of folders, one a file
    models/     networks for volumes, one a file, and what they begin with
    losses/     losses of one head, and what applies them to all heads that a network has
    inference/  from patches to whole volumes, and back onto a case's own voxel grid
    metrics/    figures of merit of whole volumes
    hooks/      pictures of what a network finds, for a person to look at

Conventions, everywhere: arrays are (x, y, z) as nibabel reads them, with channels or classes first; spacings are in mm
in that order; the background is value 0 of a label map, and class ``classes[i]`` is value i + 1.
"""
