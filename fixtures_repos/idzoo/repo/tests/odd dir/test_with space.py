def test_spaces():
    pass
