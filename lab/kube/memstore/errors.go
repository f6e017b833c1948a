package memstore

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/storage"
)

var (
	errClosed    = errors.New("cannot write: the lab's API is closed")
	errCompacted = errors.New("required revision has been compacted")
)

// LimitError says that a write would go beyond a limit of the store.
type LimitError struct{ Message string }

// Error says which limit, what was found and what is allowed.
func (e *LimitError) Error() string { return e.Message }

// expired is 410 as the real API server words it.
func expired(asked, oldest uint64) error {
	return apierrors.NewResourceExpired(expiredMessage(asked, oldest))
}

func futureError(asked, current uint64) error {
	return storage.NewTooLargeResourceVersionError(asked, current, 1)
}
