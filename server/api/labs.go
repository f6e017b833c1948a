package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humaecho"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/access"
	"podlab/server/class"
	"podlab/server/labs"
	"podlab/web/view"
)

func requestOf(ctx huma.Context) *http.Request { return humaecho.Unwrap(ctx).Request() }

type (
	// Lab is a lab, in answers.
	Lab struct {
		ID       string    `json:"id"`
		Name     string    `json:"name"`
		Owner    string    `json:"owner" doc:"The owner's user id."`
		Exercise string    `json:"exercise,omitempty"`
		Phase    lab.Phase `json:"phase" enum:"creating,ready,failed,deleting"`
		Reason   string    `json:"reason,omitempty" doc:"Why it failed."`
		// Queue is the place among those that wait for room.
		Queue     int       `json:"queue,omitempty" doc:"Place among the labs that wait for room on the host, from 1."`
		Instance  int       `json:"instance" doc:"Counts the starts, from 1."`
		CreatedAt time.Time `json:"createdAt"`
	}
	// InLab is the part of a path that names a lab.
	InLab struct {
		ID string `path:"id" maxLength:"40"`
	}
	listRequest struct {
		All bool `query:"all" doc:"All labs, not only one's own (instructor)."`
	}
	newLabRequest struct {
		Body NewLab
	}
	// NewLab says what to make a lab from; at most one of exercise and manifest.
	NewLab struct {
		Name     string `json:"name,omitempty" maxLength:"400" doc:"1 to 64 characters; without one, it is named after the exercise."`
		Exercise string `json:"exercise,omitempty" maxLength:"80" doc:"An exercise's id."`
		Manifest string `json:"manifest,omitempty" doc:"YAML: at most one document of kind Lab, and Kubernetes documents."`
		// Wait: answer when the lab is ready or has failed.
		Wait bool `json:"wait,omitempty" doc:"Answer only when the lab is ready or has failed."`
	}
	restartRequest struct {
		InLab
		Body *struct {
			Fresh bool `json:"fresh,omitempty" doc:"Start from the manifests as at the beginning, not with the objects as they are."`
		}
	}
	applyRequest struct {
		InLab
		RawBody []byte `contentType:"application/yaml"`
	}
	factsRequest struct {
		InLab
		Body agentapi.FactsRequest
	}
	kubeconfigRequest struct {
		InLab
		RawRequest
	}
	kubeconfigAnswer struct {
		ContentType        string `header:"Content-Type"`
		ContentDisposition string `header:"Content-Disposition"`
		CacheControl       string `header:"Cache-Control"`
		Body               []byte
	}
	hintRequest struct {
		InLab
		Body struct {
			Task   string `json:"task" maxLength:"80"`
			Number int    `json:"number" minimum:"1" maximum:"100"`
		}
	}
	// Hint is one hint of a task.
	Hint struct {
		Text view.Text `json:"text"`
	}
)

func labOf(l *labs.Lab) Lab {
	s, _ := l.Status()
	return Lab{
		ID: l.ID(), Name: l.Name(), Owner: l.Owner(), Exercise: l.Exercise(), Phase: s.Phase, Reason: s.Reason,
		Queue: s.Queue, Instance: s.Instance, CreatedAt: l.CreatedAt(),
	}
}

// CreateLab makes a lab for a caller; pages call it too.
func (s *Server) CreateLab(ctx context.Context, c *access.Caller, in NewLab) (*labs.Lab, error) {
	req := labs.Request{Owner: c.ID, Exercise: in.Exercise, Unlimited: c.Instructor()}
	var err error
	switch {
	case in.Exercise != "" && in.Manifest != "":
		return nil, &lab.Error{Code: lab.CodeInvalid, Field: "manifest", Message: "give either an exercise or a manifest, not both"}
	case in.Exercise != "":
		var found bool
		if req.Shape, req.Manifests, found = s.Exercises.Setup(in.Exercise); !found {
			return nil, &lab.Error{Code: lab.CodeNotFound, Field: "exercise", Message: fmt.Sprintf("there is no exercise %q", in.Exercise)}
		}
	case in.Manifest != "":
		if req.Shape, req.Manifests, err = labs.ParseManifest(in.Manifest); err != nil {
			return nil, err
		}
	default:
		req.Shape, req.Manifests = lab.DefaultLab(), lab.DefaultPods
	}
	if req.Name, err = s.labName(c, in); err != nil {
		return nil, err
	}
	return s.Labs.Create(ctx, req)
}

// labName is the name asked for, or the first free one.
func (s *Server) labName(c *access.Caller, in NewLab) (string, error) {
	if in.Name != "" {
		return class.CleanName(in.Name)
	}
	base := in.Exercise
	if base == "" {
		base = "lab"
	}
	taken := map[string]bool{}
	for _, l := range s.Labs.List(c.ID) {
		taken[l.Name()] = true
	}
	name := base
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name, nil
}

func (s *Server) labs(api huma.API) {
	add(s, api, operation{"GET", "/labs", "list-labs", "List labs", 0, false},
		func(ctx context.Context, in *listRequest) (*body[[]Lab], error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			owner := c.ID
			if in.All {
				if _, err := access.Instructor(ctx); err != nil {
					return nil, err
				}
				owner = ""
			}
			out := []Lab{}
			for _, l := range s.Labs.List(owner) {
				out = append(out, labOf(l))
			}
			return &body[[]Lab]{out}, nil
		})
	add(s, api, operation{"POST", "/labs", "create-lab", "Make a lab: of an exercise, of a manifest, or the default one", 201, false},
		func(ctx context.Context, in *newLabRequest) (*body[Lab], error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			l, err := s.CreateLab(ctx, c, in.Body)
			if err != nil {
				return nil, err
			}
			if in.Body.Wait {
				_ = l.Await(ctx) // how it went is in the answer
			}
			return &body[Lab]{labOf(l)}, ctx.Err()
		})
	add(s, api, operation{"GET", "/labs/{id}", "get-lab", "Show a lab", 0, false},
		func(ctx context.Context, in *InLab) (*body[Lab], error) {
			l, err := access.Lab(ctx, s.Labs, in.ID, access.See)
			if err != nil {
				return nil, err
			}
			return &body[Lab]{labOf(l)}, nil
		})
	add(s, api, operation{"DELETE", "/labs/{id}", "delete-lab", "Delete a lab and all that is in it", 204, false},
		func(ctx context.Context, in *InLab) (*none, error) {
			l, err := access.Lab(ctx, s.Labs, in.ID, access.Manage)
			if err != nil {
				return nil, err
			}
			return &none{}, l.Delete(ctx)
		})
	add(s, api, operation{"POST", "/labs/{id}/restart", "restart-lab", "Start a ready or failed lab again", 202, false},
		func(ctx context.Context, in *restartRequest) (*body[Lab], error) {
			l, err := access.Lab(ctx, s.Labs, in.ID, access.Manage)
			if err != nil {
				return nil, err
			}
			if err := l.Restart(ctx, in.Body != nil && in.Body.Fresh); err != nil {
				return nil, err
			}
			return &body[Lab]{labOf(l)}, nil
		})
}

// inLab are the routes that need the lab's agent.
func (s *Server) inLab(api huma.API) {
	add(s, api, operation{"POST", "/labs/{id}/apply", "apply", "Apply Kubernetes documents, all or none", 0, false},
		func(ctx context.Context, in *applyRequest) (*body[agentapi.ApplyResult], error) {
			agent, err := s.agent(ctx, in.ID, access.Use)
			if err != nil {
				return nil, err
			}
			return ok(agent.Apply(ctx, in.RawBody))
		})
	add(s, api, operation{"POST", "/labs/{id}/facts", "read-facts", "Read facts from the kernel and the lab's API, and run probes", 0, false},
		func(ctx context.Context, in *factsRequest) (*body[lab.Facts], error) {
			if err := validProbes(in.Body.Probes); err != nil {
				return nil, err
			}
			agent, err := s.agent(ctx, in.ID, access.Use)
			if err != nil {
				return nil, err
			}
			return ok(agent.Facts(ctx, in.Body))
		})
	add(s, api, operation{"GET", "/labs/{id}/state", "get-state", "The lab's state: namespaces, links, routes, pods", 0, false},
		func(ctx context.Context, in *InLab) (*body[lab.State], error) {
			agent, err := s.agent(ctx, in.ID, access.See)
			if err != nil {
				return nil, err
			}
			return ok(agent.State(ctx))
		})
	add(s, api, operation{"GET", "/labs/{id}/log", "get-log", "Events of the past", 0, false},
		func(ctx context.Context, in *logRequest) (*body[[]lab.Event], error) {
			agent, err := s.agent(ctx, in.ID, access.See)
			if err != nil {
				return nil, err
			}
			return ok(agent.Log(ctx, in.Before, in.Limit))
		})
	add(s, api, operation{"GET", "/labs/{id}/kubeconfig", "get-kubeconfig", "A kubeconfig for kubectl, with a token for this lab", 0, false},
		func(ctx context.Context, in *kubeconfigRequest) (*kubeconfigAnswer, error) {
			l, err := access.Lab(ctx, s.Labs, in.ID, access.Use)
			if err != nil {
				return nil, err
			}
			return s.kubeconfig(ctx, l, in.request)
		})
	add(s, api, operation{"POST", "/labs/{id}/hints", "get-hint", "A hint for a task of the lab's exercise", 0, false},
		func(ctx context.Context, in *hintRequest) (*body[Hint], error) {
			l, err := access.Lab(ctx, s.Labs, in.ID, access.See)
			if err != nil {
				return nil, err
			}
			text, found := s.Exercises.Hint(l.Exercise(), in.Body.Task, in.Body.Number)
			if !found {
				return nil, lab.Errorf(lab.CodeNotFound, "there is no hint %d for task %q", in.Body.Number, in.Body.Task)
			}
			return &body[Hint]{Hint{text}}, nil
		})
}

func validProbes(probes map[string]lab.Probe) error {
	if len(probes) > lab.MaxProbes {
		return &lab.Error{Code: lab.CodeLimit, Field: "probes", Message: fmt.Sprintf("%d probes; at most %d are allowed", len(probes), lab.MaxProbes)}
	}
	for id, p := range probes {
		if err := p.Validate(); err != nil {
			return &lab.Error{Code: lab.CodeInvalid, Field: "probes." + id, Message: err.Error()}
		}
	}
	return nil
}
