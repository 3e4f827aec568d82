"""Sequential recommendation: which item comes next? Its own zoo, loop and metrics beside those of the CTR models."""
