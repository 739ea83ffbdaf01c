import json

from pipeline.cli.watch import watch_status


def looker(num_looks):
    """Give a status that is complete at the last look, and the list of waits."""
    looks = iter(range(1, num_looks + 1))
    return lambda: {"complete": (number := next(looks)) == num_looks, "done": number}


def test_it_ends_when_the_run_is_complete(capsys):
    waits = []
    watch_status(looker(3), "run", interval_s=7, as_json=True, wait=waits.append)
    assert [json.loads(line)["done"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]
    assert waits == [7, 7]


def test_a_log_gets_one_table_after_the_other(capsys):
    watch_status(looker(2), "run", interval_s=1, as_json=False, wait=lambda seconds: None)
    assert capsys.readouterr().out.count("done") == 2


def test_ctrl_c_ends_it_without_an_error(capsys):
    def stop(seconds):
        raise KeyboardInterrupt

    watch_status(looker(9), "run", interval_s=1, as_json=True, wait=stop)
    assert len(capsys.readouterr().out.splitlines()) == 1
