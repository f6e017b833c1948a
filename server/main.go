// Command podlab is the server of pod-networking labs, and its tools.
package main

func main() {}
