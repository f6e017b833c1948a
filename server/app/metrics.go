package app

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"podlab/server/labs"
	"podlab/server/stream"
)

// metrics has a registry of its own.
type metrics struct {
	registry  *prometheus.Registry
	ready     prometheus.Histogram
	failed    prometheus.Counter
	forwarded prometheus.Counter
	requests  *prometheus.HistogramVec
}

func newMetrics(a *App) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		ready: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "podlab_lab_ready_seconds", Help: "Time from a lab's start to its default pods being ready.",
			Buckets: []float64{.05, .1, .15, .2, .25, .3, .4, .5, .75, 1, 2, 5, 10, 30},
		}),
		failed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "podlab_labs_failed_total", Help: "Labs that failed."}),
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{Name: "podlab_stream_messages_total", Help: "Events and snapshots sent to browsers."}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "podlab_http_request_seconds", Help: "Duration of HTTP requests by route and status; streams count when they end.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}, []string{"route", "status"}),
	}
	m.registry.MustRegister(m.ready, m.failed, m.forwarded, m.requests, &gauges{app: a},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) hooks() labs.Hooks {
	return labs.Hooks{
		Ready:  func(d time.Duration) { m.ready.Observe(d.Seconds()) },
		Failed: m.failed.Inc,
	}
}

func (m *metrics) streamStats() stream.Stats { return stream.Stats{Forwarded: m.forwarded.Inc} }

func (m *metrics) request(route string, status int, took time.Duration) {
	if route == "" {
		route = "none"
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// gauges are read when they are asked for.
type gauges struct{ app *App }

var (
	labsDesc    = prometheus.NewDesc("podlab_labs", "Labs by phase.", []string{"phase"}, nil)
	socketsDesc = prometheus.NewDesc("podlab_websockets", "Open WebSockets by kind.", []string{"kind"}, nil)
)

// Describe tells what Collect gives.
func (g *gauges) Describe(c chan<- *prometheus.Desc) { c <- labsDesc; c <- socketsDesc }

// Collect reads the gauges.
func (g *gauges) Collect(c chan<- prometheus.Metric) {
	for phase, n := range g.app.manager.Phases() {
		c <- prometheus.MustNewConstMetric(labsDesc, prometheus.GaugeValue, float64(n), string(phase))
	}
	for kind, n := range g.app.hub.Counts() {
		c <- prometheus.MustNewConstMetric(socketsDesc, prometheus.GaugeValue, float64(n), kind)
	}
}
