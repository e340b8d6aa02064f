"""Ptychography: diffraction data, the forward model, and what it reconstructs.

Where things are, from the formula outwards:

    optics, forward, geometry, quality      pure functions of arrays: the physics, testable by themselves
    batch_order, held_out_positions         likewise: who is trained together; where held-out patterns were taken
    diffraction (simulated, file_diffraction: hdf5, numpy, cxi)     settings of the data, one reader a file
    prepare, preparation, scan_positions    from a detector's frames and a stage's positions to our convention
    hdf5_file, numpy_file, cxi_file, damage, free_memory            files, none of which is trusted
    recorded, patterns, scan                from a file's arrays to a checked recording, read when it is asked for
    sampling, summary                       what `check --data` says of it, and what looks wrong
    pattern_places, live_diffraction        where patterns are in a run; what the loop trains on
    objects (pixels), probes (aperture, …)  kinds that other packages can extend
    single_slice, single_slice_module       the model: its settings, and the network made from them
    amplitude, poisson, intensity           losses
    tv, position_anchor, truth              regularisers, and the comparison with a known truth
    pictures, scale_bar, result, imagej_tiff                        what a run leaves behind

Conventions, everywhere (docs/ptychography_conventions.md has them all): arrays are (rows, columns), positions are (row,
column) in pixels of the object; patterns have their zero frequency at [0, 0]; a probe sits at pixel (Y//2, X//2) of its
array; a positive defocus is underfocus (C10 = −defocus); the object transmits ``exp(i·phase − absorption)``.
"""
