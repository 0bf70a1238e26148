"""Things left behind: processes and files."""

import subprocess
import sys
import threading
import time


def test_leaves_a_process():
    subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(3600)"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_leaves_a_thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()


def test_leaves_a_file():
    with open("left_behind.txt", "w") as file:
        file.write("left behind\n")
