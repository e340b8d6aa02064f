"""The training loop.

    resume                                         only if the run continues from where another process ended
    run_start
    while epochs are left:
        group_start / group_stop                   groups are switched on and off
        epoch_start
        for the batches of each step in data.train(epoch, start):
            step_start
            outputs = model(batch)                 ┐
            loss = weighted sum of the losses      ├ over several batches if gradients are accumulated
            loss.backward()                        ┘
            backward_end
            optimizer.step()                       skipped if a gradient of fp16 overflowed
            step_end
            evaluation, picture                    every few steps
            checkpoint                             after an evaluation, or if a save or an interruption was requested
        evaluation                                 every few epochs, and at the end:
            for each split except "train":
                validation_start
                for batch in data.evaluate(split):
                    outputs = inference(model, batch)
                    validation_step_end
                validation_end
        schedules observe the metrics              with validation.beside, those of the epoch before
        picture                                    every few epochs if there is time, and at the end; not in a trial
        epoch_end
        checkpoint
        late_values                                after a step, of the epoch before, if that was evaluated beside it
    run_end                                        always, also after an error

Everything else (logging, checkpoints, early stopping, progress, a model's constraints) listens to these events. During
the steps nothing is read from the device: values are accumulated there and read at the epoch's end.

With several processes, each runs this loop. They add up what each computed of a step, and agree on requests to stop or
to save before anything follows from them (`trainkit.engine.agreement`), so all make the same steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.engine.agreement import agree, metrics_of_first, shared_means
from trainkit.engine.batches import to_device
from trainkit.engine.beside import beside_of
from trainkit.engine.evaluation import evaluate
from trainkit.events import fire
from trainkit.garbage import not_collected
from trainkit.randomness import generators_kept, restore_generators
from trainkit.state import EpochMean, EpochValues

if TYPE_CHECKING:
    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.root import Pictures, Validation
    from trainkit.state import State


def train(run: LiveRun) -> None:
    """Run the rest of a training, from the point that ``run.state`` describes.

    Raises:
        NonFiniteError: The loss or a parameter became NaN or infinite.
    """
    state = run.state
    if run.resumed:
        run.emit("resume")
    run.emit("run_start")
    agree(state)
    if run.generators is not None:
        restore_generators(run.generators)
    run.watch.lap()
    run.picture_budget.start(state)
    if state.stop_reason is not None and not state.steps_in_epoch:
        return  # it was stopped before, and only its end is made up for
    run.beside = beside_of(run)
    try:
        _train_epochs(run)
    finally:
        if run.beside is not None:
            run.beside.end()


def _train_epochs(run: LiveRun) -> None:
    state = run.state
    while state.epoch < state.epochs:
        # A signal may come at any moment, so each function says whether it has saved what an interruption must save.
        if _train_epoch(run):
            return  # the resumed run does the rest of the epoch, including its evaluation
        if _close_epoch(run) or state.stop_reason is not None:
            return


def _train_epoch(run: LiveRun) -> bool:
    """Make the steps of an epoch; return whether the run was interrupted, with a checkpoint, before they were over."""
    state, groups, step, events = run.state, run.groups, run.step, run.events
    step_start, backward_end = events["step_start"], events["backward_end"]
    device, by_steps = state.context.device, run.recurs_by_steps
    channels_last = run.recipe.run.channels_last

    run.watch.switch("steps")
    groups.enter_epoch(state.epoch, state.updates_before_epoch, state.updates - state.updated)
    step.enter_epoch()
    step_end = step.left_of(events)
    if not state.steps_in_epoch:
        _start_epoch(run)
    else:  # the run resumes inside the epoch
        _emit_group_events(run, to="loggers.")
        if by_steps and not _is_last_step(state) and _was_kept_from_evaluating(run):
            if not _every_few_steps(run):
                return True  # the checkpoint from which the run was resumed is still its state
            run.emit("checkpoint")
    groups.train_mode()
    loss = state.means["train/loss"]

    interrupted = False
    if not _is_last_step(state):
        for batches in run.batches.steps(state.epoch, state.steps_in_epoch, run.watch):
            state.batch = to_device(batches[0], device, channels_last=channels_last)
            if step_start:
                fire(step_start, state)
            groups.set_step_rates(state.epoch, state.updates)
            step.gradients(batches)
            if backward_end:
                fire(backward_end, state)
            step.update()
            state.step += 1
            assert state.loss is not None
            loss.add(state.loss.detach())
            if step_end:
                fire(step_end, state)
            agree(state)
            if by_steps and state.steps_in_epoch < state.steps_per_epoch and not _is_last_step(state):
                _every_few_steps(run)
                agree(state)
            interrupted = state.interrupt_reason is not None
            if run.beside is not None and run.beside.is_pending:
                run.beside.take_in()
                if (interrupted or state.save_reason is not None) and not run.beside.finish():
                    interrupted = True
                    break  # with the checkpoint of the epoch before
            if interrupted or state.save_reason is not None or (by_steps and state.evaluated_step == state.step):
                run.emit("checkpoint")
            if interrupted or _is_last_step(state):
                break
    step.leave_epoch()
    run.watch.switch("rest")
    return interrupted


def _start_epoch(run: LiveRun) -> None:
    state = run.state
    state.metrics, state.pictures = {}, {}
    state.means = {"train/loss": EpochMean(must_be_finite=True)}
    _emit_group_events(run)
    run.emit("epoch_start")


def _emit_group_events(run: LiveRun, to: str = "") -> None:
    """Tell the parts whose name begins with ``to`` which groups stop and start in this epoch.

    When a run resumes inside an epoch, only loggers are told again: what they wrote of the epoch was cut back.
    """
    state, groups = run.state, run.groups
    for event, names in (("group_stop", groups.stopped(state.epoch)), ("group_start", groups.started(state.epoch))):
        for name in names:
            state.group = name
            fire((each for each in run.events[event] if each.where.startswith(to)), state)
    state.group = None


def _is_last_step(state: State) -> bool:
    """Return whether the steps of this epoch end here, although the data may have more batches."""
    return state.step == state.steps or state.stop_reason is not None


def _was_kept_from_evaluating(run: LiveRun) -> bool:
    """Return whether an evaluation inside the epoch was interrupted."""
    state = run.state
    inside = 0 < state.steps_in_epoch < state.steps_per_epoch
    return inside and _is_due(run.recipe.validation.every_steps, state.step) and state.evaluated_step != state.step


def _every_few_steps(run: LiveRun) -> bool:
    """Evaluate and make pictures after a step inside an epoch, if they are due; return False if interrupted."""
    state, recipe = run.state, run.recipe
    if not any(_is_due(each.every_steps, state.step) for each in (recipe.validation, recipe.pictures)):
        return True
    run.step.pause()
    if _is_due(recipe.validation.every_steps, state.step):
        if not _evaluate(run):
            return False
        run.groups.train_mode()
    if _is_due(recipe.pictures.every_steps, state.step) and not state.is_trial:
        _make_pictures(run)
        state.pictures = {}
    run.step.go_on()
    return True


def _is_due(every: int, number: int) -> bool:
    return every > 0 and number % every == 0


def _evaluate(run: LiveRun) -> bool:
    """Evaluate unless that was already done after this step; return False if the run was interrupted before its end."""
    state = run.state
    if state.evaluated_step == state.step:
        return True
    if state.interrupted:
        return False
    with run.watch.during("validation"):
        return evaluate(run) if run.beside is None or not state.closing else run.beside.evaluate_in_line()


def _has_time_for_pictures(run: LiveRun) -> bool:
    """Return whether pictures are made although the recipe does not say how often; all processes do the same."""
    if run.recipe.pictures.every_epochs is not None:
        return False
    return run.state.context.exchange.from_first(run.picture_budget.allows(run.state, run.watch))


def _make_pictures(run: LiveRun) -> None:
    """Let parts make pictures. They may use random numbers, but those of the training stay the same.

    Python does not look for garbage meanwhile: the first pictures import matplotlib, which stays; else there is little.
    """
    run.picture_budget.take_in()
    with generators_kept(), not_collected():
        run.emit("picture")


def _close_epoch(run: LiveRun) -> bool:
    """Evaluate, make pictures and save; return whether the run was interrupted, with a checkpoint."""
    state, recipe = run.state, run.recipe
    if run.beside is not None and not run.beside.finish():
        return True
    state.closing = True
    with run.watch.during("steps"):  # whose results a device may still be computing
        means = shared_means(run, state.means)
    state.metrics = means | {name: value for name, value in state.metrics.items() if name not in means}
    finished = state.epoch + 1

    def is_due(settings: Validation | Pictures) -> bool:
        return (
            state.is_last_epoch
            or _is_due(settings.every_epochs or 0, finished)
            or _is_due(settings.every_steps, state.step)
        )

    pictures = state.pictures_reason is not None or is_due(recipe.pictures)
    if is_due(recipe.validation):
        if run.beside is not None:
            pictures = pictures or _has_time_for_pictures(run)
        if run.beside is not None and run.beside.takes_over(pictures):
            run.beside.hand_over()
        elif not _evaluate(run):
            run.emit("checkpoint")  # of the state after the epoch's last step
            return True
    state.metrics |= {f"lr/{name}": lr for name, lr in state.learning_rates().items()}
    state.metrics = metrics_of_first(run)
    acts_late = recipe.validation.beside  # also where it evaluates in line, so that nothing depends on free CPUs
    own = () if acts_late else (EpochValues(state.epoch, state.updates, state.metrics),)
    state.values_to_act_on = (*run.not_acted_on, *own)
    run.groups.observe(state.values_to_act_on)
    if not state.is_trial and (pictures or _has_time_for_pictures(run)):
        _make_pictures(run)
    state.cpu_wait_seconds = run.watch.waited_for_cpus()
    run.emit("epoch_end")
    if state.awaits_values:
        assert run.beside is not None
        run.beside.keep_state()
    run.watch.lap()
    state.metrics = metrics_of_first(run)
    is_to_act_on = acts_late and not state.awaits_values
    run.not_acted_on = (EpochValues(state.epoch, state.updates, dict(state.metrics)),) if is_to_act_on else ()
    agree(state)
    state.pictures, state.pictures_reason = {}, None
    state.epoch, state.epoch_step, state.closing = finished, state.step, False
    interrupted = state.interrupted  # after this, the next epoch makes its first step and is saved
    run.emit("checkpoint")
    if state.awaits_values:
        assert run.beside is not None
        run.beside.keep_content()
        if interrupted or state.stop_reason is not None:
            run.beside.finish()
    return interrupted
