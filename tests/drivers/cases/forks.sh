# Background jobs, traps, a here document, a FIFO, PID files
mkfifo fifo; echo $$ > main.pid
(while read -r line; do echo "got $line"; done < fifo > got) & reader=$!
exec 5> fifo; echo one >&5; trap 'echo trapped' USR1
echo ready
while [ ! -e go ]; do sleep 0.02; done
echo two >&5; exec 5>&-; wait $reader; cat got; kill -USR1 "$(cat main.pid)"
cat <<< "$(cat main.pid) $$ $PPID"; cat /proc/self/status | grep -c NSpid
