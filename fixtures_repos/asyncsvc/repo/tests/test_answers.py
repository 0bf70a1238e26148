from asyncsvc import Server


def test_without_a_loop():
    server = Server()
    assert server.answer("SET a 1\n") == "OK"
    assert server.answer("GET a\n") == "VALUE 1"
