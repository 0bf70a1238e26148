"""One engine or SDK each, mapped onto ``provider.py`` and ``errors.py``; imported when used."""
