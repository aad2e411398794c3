BUNDLED: dict = {}


def get(name, progress=None):
    return name
