"""Whether a call lets other threads run."""
import threading
import time


def others_run_during(call, tries=20):
    """True as soon as another thread has run several times during one call: were the interpreter's lock held, it could
    do so once or twice at most, between a reading of the count and the call."""
    count, done = [0], threading.Event()

    def tick():
        while not done.is_set():
            count[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        for _ in range(tries):
            before = count[0]
            call()
            if count[0] > before + 2:
                return True
        return False
    finally:
        done.set()
        thread.join()
