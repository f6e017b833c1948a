# Yours. /etc/bash.bashrc has the lab's defaults.
