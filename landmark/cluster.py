"""Stub."""

import tensorflow.compat.v1 as tf


class Cluster:
    def __init__(self):
        self.tasks, self.index, self.is_first, self.name = 1, 0, True, "alone"

    def share(self, paths):
        return paths

    def agree(self, run, start):
        return start

    def average(self, gradients):
        return gradients

    def session(self):
        return tf.Session()

    def start(self, session):
        pass

    def run(self, session, fetches):
        return session.run(fetches)


def find_cluster():
    return Cluster()
