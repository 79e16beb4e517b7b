// Command jobrunner runs retries and asynchronous actions; see jobrunner --help.
package main

import "github.com/tributary-dev/tributary/internal/app"

func main() { app.Main(app.JobRunner) }
