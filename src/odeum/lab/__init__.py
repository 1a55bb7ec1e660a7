"""The laboratory: learn dynamics from data, keep what a run leaves behind, read it back.

Signatures (published ahead of their code):

fit(model, data, *, name=None, out=None, resume=False, seed=0, epochs=None, holdout=0.2,
    hidden=(64, 64), activation="tanh", method="tsit5", learning_rate=None, weight_decay=...,
    device="auto", quiet=False, title=None, command=None, on_epoch=None) -> Run
    model: None | "mlp" | "linear" | an nn.Module field in normalised units | a NeuralODE
    out: None makes runs/<name>-<n>; an existing non-empty folder needs resume=True (InputError)
    on_epoch(row: dict): called after each epoch with its line of metrics.jsonl
load(run_dir, model=None) -> Run            model: only where the run learned a module of the user's
predict(run, data=None, until=None) -> pandas.DataFrame
Run: .path Path, .model LearnedDynamics, .summary dict, .config dict, .data Trajectories,
    .predict(data=None, until=None)

train.py     train(model, stages, make_batch, measure, *, evaluate=None, directory=None,
                   resume=False, seed=0, weight_decay=0, quiet=True, on_epoch=None) -> Training
    Stage(window, n_epochs, learning_rate)
    make_batch(stage: Stage, generator: torch.Generator) -> batch        anything
    measure(model, batch) -> Loss(value, n_failed, n_evaluations, n_rejected)   value: a scalar
    evaluate(model) -> float | None       the held-out error; lowest in the last stage is kept
    Training: .epochs .best_epoch .best_held_out .seconds .n_evaluations .n_rejected
              (the model holds the best weights when train returns)
directory.py RunDirectory: create(out, name, config, data, resume), finish(...)
"""
