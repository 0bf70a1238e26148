import unittest

import pytest


class SubTests(unittest.TestCase):
    def test_all_pass(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertLess(number, 3)

    def test_one_fails(self):
        for number in range(4):
            with self.subTest("message", number=number):
                self.assertNotEqual(number, 2)

    def test_fails_after_failed_subtest(self):
        with self.subTest(part=1):
            self.fail("in the subtest")
        self.fail("after it")

    @unittest.expectedFailure
    def test_expected(self):
        self.fail("as known")

    @unittest.expectedFailure
    def test_unexpected_success(self):
        pass


if hasattr(pytest, "Subtests"):

    def test_fixture(subtests):
        for number in range(3):
            with subtests.test(msg="number", number=number):
                assert number != 1

    def test_fixture_skips(subtests):
        with subtests.test("skips"):
            pytest.skip("in a subtest")
        with subtests.test("passes"):
            pass

    def test_fixture_all_pass(subtests):
        for number in range(2):
            with subtests.test(number=number):
                pass
