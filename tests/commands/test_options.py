"""Every option of every command acts: none is accepted and then ignored."""

import argparse
import ast
import inspect
import textwrap

import pytest

from tfavmae.cli import build_parser


def commands(parser, words=()):
    """Words and parser of every command below a parser."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for name, child in (pair for group in groups for pair in group.choices.items()):
        yield from commands(child, (*words, name))
    if not groups:
        yield words, parser


def reads(function, seen=None):
    """Attributes of `args` that a function reads, or one that it hands `args` to."""
    seen = set() if seen is None else seen
    if function in seen:
        return set()
    seen.add(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "args":
            found.add(node.attr)
        if isinstance(node, ast.Call) and "args" in map(ast.unparse, node.args):
            for called in functions_called(node, function, tree):
                found |= reads(called, seen)
    return found


def functions_called(call, function, tree):
    """The function of a call; those of a table, where a table is called."""
    names = function.__globals__
    if isinstance(call.func, ast.Subscript):
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        candidates = [names.get(word) for word in sorted(words)]
        return [
            one
            for one in candidates
            if inspect.isfunction(one) and "args" in inspect.signature(one).parameters
        ]
    called = eval(ast.unparse(call.func), names)
    # `refuse` reads nothing: it says that the option is not for this case.
    return [called] if called.__name__ != "refuse" else []


COMMANDS = dict(commands(build_parser()))


def test_all_commands_are_found():
    assert ("data", "serve") in COMMANDS and ("demo",) in COMMANDS
    assert len(COMMANDS) == 28


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_is_read(words):
    parser = COMMANDS[words]
    # `cli` acts on these itself, for all commands.
    shared = {"help", "debug", "quiet", "json"}
    options = {action.dest for action in parser._actions} - shared
    assert options == reads(parser.get_default("run")) - shared


def test_every_command_with_figures_prints_them_as_json():
    def has_json(parser):
        return any("--json" in action.option_strings for action in parser._actions)

    without = {" ".join(words) for words, one in COMMANDS.items() if not has_json(one)}
    # Of the demo, summary.json has them.
    assert without == {
        *("demo", "serve", "data serve"),
        *("weights import", "weights export"),
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_option_is_hidden_or_has_an_alias(words):
    for action in COMMANDS[words]._actions:
        if action.option_strings and action.dest != "help":
            assert action.help != argparse.SUPPRESS
            # A published file is not a work directory, and stands where one does.
            assert action.option_strings in (
                action.option_strings[:1],
                ["--workdir", "--from"],
            )


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("data serve", "--set"),
        ("data serve", "--workdir"),
        ("data audit vggsound --annotations x --media x", "--config"),
        ("data audit vggsound --annotations x --media x", "--workdir"),
        ("data describe x", "--set"),
        ("statistics x", "--set"),
        ("statistics x", "--config"),
        ("statistics x", "--workdir"),
        ("pretrain --workdir x", "--checkpoint_every"),
    ],
)
def test_options_of_other_commands_are_unknown(words, option, cli):
    done = cli(*words.split(), option, "1")
    assert done.status == 2
    assert option in done.err and "--help" in done.err and done.err.count("\n") == 1


def test_two_folders_of_a_data_set_are_refused(cli):
    done = cli("data", "describe", "x", "--data-dir", "a", "--workdir", "b")
    assert done.status == 2 and "--data-dir" in done.err and "give one" in done.err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("retrieve --workdir x", "--top 3"),
        ("retrieve --workdir x", "--by video"),
        ("localize --workdir x", "--output page.png"),
        ("localize a.mp4 --workdir x", "--split test"),
        ("reconstruct --workdir x", "--output y"),
        ("reconstruct a.mp4 --workdir x", "--split test"),
        ("pretrain --workdir x", "--data-dir y"),
        ("finetune --workdir x", "--labels y"),
        ("demo --workdir x", "--labels y"),
        ("embed train --workdir x --output x.npz", "--strict"),
        ("data build clip_folder --videos x", "--seed 0"),
        ("data build sounding_shapes", "--strict"),
        ("data build sounding_shapes", "--clip-seconds 1"),
        ("data build vggsound", "--labels x"),
        (
            "describe --config cav_mae/pretrain_sounding_shapes_demo.yaml",
            "--classes 4",
        ),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(words, option, cli):
    done = cli(*words.split(), *option.split())
    assert done.status == 2
    assert option.split()[0] in done.err and "does not apply to" in done.err
