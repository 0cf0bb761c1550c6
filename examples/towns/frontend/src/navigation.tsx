import { type MouseEvent, useSyncExternalStore } from "react";

function subscribe(onChange: () => void): () => void {
  window.addEventListener("popstate", onChange);
  return () => window.removeEventListener("popstate", onChange);
}

/** The path of the page, followed through links, back and forward. */
export function usePath(): string {
  return useSyncExternalStore(subscribe, () => window.location.pathname);
}

export function Link({ to, children }: { to: string; children: string }) {
  const current = usePath() === to;

  function navigate(event: MouseEvent) {
    // With a modifier key the browser opens another tab or window.
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    window.history.pushState(null, "", to);
    // pushState itself tells nobody.
    window.dispatchEvent(new PopStateEvent("popstate"));
  }

  return (
    <a href={to} onClick={navigate} aria-current={current ? "page" : undefined}>
      {children}
    </a>
  );
}
