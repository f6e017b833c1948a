# Every interactive shell of a lab: prompt, colours, completion, history.
export LANG=C.UTF-8 LC_ALL=C.UTF-8 EDITOR=vi PAGER=less LESS=-R
[ -z "${PS1-}" ] && return

shopt -s checkwinsize histappend
HISTCONTROL=ignoredups
HISTSIZE=5000
PS1='\[\e[1;32m\]\u@\h\[\e[0m\]:\[\e[1;34m\]\w\[\e[0m\]\$ '

alias ls='ls --color=auto'
alias ll='ls -l'
alias la='ls -la'
alias grep='grep --color=auto'
alias ip='ip -color=auto'
alias bridge='bridge -color=auto'
alias k=kubectl

if [ -r /usr/share/bash-completion/bash_completion ]; then
  . /usr/share/bash-completion/bash_completion
  _podlab_k() { _completion_loader kubectl; complete -o default -F __start_kubectl k; __start_kubectl "$@"; }
  complete -o default -F _podlab_k k
fi
