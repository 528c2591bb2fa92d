"""The command `sare`: all stages, and what looks after their results."""

import typer

from stages import (
    audit,
    caption,
    evaluate,
    export,
    index,
    mini,
    options,
    pin,
    plan,
    reconstruct,
    report,
    retry,
    rm,
    study,
    submit,
    train,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tell AI-generated images from real ones by their semantic-aware reconstruction error (SARE).",
)
for command in (
    index.index,
    caption.caption,
    reconstruct.reconstruct,
    train.train,
    evaluate.evaluate,
    report.report,
    export.export,
    study.study,
    submit.submit,
    plan.plan,
    pin.pin,
    retry.retry_failed,
    audit.status,
    audit.verify,
    audit.gc,
    rm.rm,
    mini.mini,
):
    app.command()(command)


def main() -> None:
    options.run_command(app)


if __name__ == "__main__":
    main()
