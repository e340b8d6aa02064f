"""3D segmentation of medical images: from a folder of cases to patches and whole volumes.

Where the data side is, from the files outwards:

    nifti, file_memory, label_values        single files
    cases (msd_folder, brats_folder, …)     one case and its files; what the values of a label mean
    segmentation_data (msd, brats, …)       settings of the data, one layout of folders a file
    splits (fraction, folds, …)             a kind that other packages can extend: who is trained on, who is held out
    inspection                              what `check --data` says, without opening what it need not
    preprocessing: preparation, grid        from a case to the grid that the network works on, and back
    cache: case_store, prepared_cases       preprocessed cases on the disk, shared by everybody
    patches, augmentation: augmenting, …    from volumes to what a step sees
    live_segmentation: patch_batches, …     what the loop trains on; workers prepare it ahead

And the model side:

    segmentation_model (unet, dynunet, …)   settings of the networks, one a file; monai_network: any other of MONAI's
    network_module, initial_weights         the network as the loop sees it, and what it begins with
    segmentation_loss (dice_ce, …)          losses of one head; deep_supervision: of all that a network has
    sliding_window                          from patches to whole volumes
    prediction                              back onto a case's own voxel grid, once for all who ask
    overlap, surfaces                       pure functions of labels and masks
    segmentation_metric (dice, hd95, …)     figures of merit; case_scores: means over cases and classes
    overlays, overlay_picture               what a person looks at

Conventions, everywhere: arrays are (x, y, z) as nibabel reads them, with channels or classes first; spacings are in mm
in that order; the background is value 0 of a label map, and class ``classes[i]`` is value i + 1.
"""
