# STANDIN
def model_card(m): return ""
