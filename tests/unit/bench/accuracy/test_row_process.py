from row_process import DIGEST_FILE, alone, forget_other_recipe


def test_two_processes_never_have_one_row(tmp_path):
    with alone(tmp_path / "row") as first, alone(tmp_path / "row") as second, alone(tmp_path / "other") as other:
        assert (first, second, other) == (True, False, True)
    with alone(tmp_path / "row") as again:
        assert again


def test_the_work_of_another_recipe_is_forgotten(tmp_path):
    folder = tmp_path / "row"
    folder.mkdir()
    forget_other_recipe(folder, "one")
    (folder / "state.pt").write_text("state")
    forget_other_recipe(folder, "one")
    assert (folder / "state.pt").exists()
    forget_other_recipe(folder, "two")
    assert [path.name for path in folder.iterdir()] == [DIGEST_FILE]
