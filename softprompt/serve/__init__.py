"""`softprompt serve`: many artifacts on one base over HTTP. Requests that wait together run together.

Four nouns: a *request* (`request.py`), the *batch* it runs in, the *scheduler* that makes batches (`scheduler.py`), and the
*document cache* that all of them share (`documents.py` of the package above).
"""
