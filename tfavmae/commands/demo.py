"""`demo`: all of it, in one command."""

from tfavmae.commands.arguments import add_command


def add_parser(commands, run_command):
    """Adds `demo`, which runs the other commands through `run_command(argv)`."""

    def run(args):
        from tfavmae.demo import steps

        options = steps.Options(
            workdir=args.workdir or "runs/demo",
            videos=args.videos,
            seed=args.seed,
            is_quick=args.quick,
            recipe=args.config,
            overrides=tuple(args.set),
        )
        print(steps.run(options, run_command))

    parser = add_command(
        commands,
        "demo",
        run,
        summary="go from videos to a served model and a report page",
        example="tfavmae demo --videos my_videos --workdir runs/mine",
    )
    add = parser.add_argument
    add("--videos", metavar="DIR", help="your files, label-free parts only")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of data and model (default: 0)",
    )
    add("--quick", action="store_true", help="a minute on a toy scale; learns nothing")
