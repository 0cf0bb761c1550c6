import { useEffect, useState } from "react";
import { fetchTowns, type Town } from "./api";

type Loading =
  | { state: "loading" }
  | { state: "failed"; reason: string }
  | { state: "loaded"; towns: Town[] };

export function TownsPage() {
  const loading = useTowns();
  return (
    <>
      <h1>Towns</h1>
      {loading.state === "loading" && <p role="status">Loading towns…</p>}
      {loading.state === "failed" && <p role="alert">The towns could not be loaded: {loading.reason}</p>}
      {loading.state === "loaded" && <TownList towns={loading.towns} />}
    </>
  );
}

function useTowns(): Loading {
  const [loading, setLoading] = useState<Loading>({ state: "loading" });

  useEffect(() => {
    const controller = new AbortController();
    fetchTowns(controller.signal).then(
      (towns) => setLoading({ state: "loaded", towns }),
      (error: Error) => {
        if (!controller.signal.aborted) setLoading({ state: "failed", reason: error.message });
      },
    );
    return () => controller.abort();
  }, []);

  return loading;
}

function TownList({ towns }: { towns: Town[] }) {
  const [filter, setFilter] = useState("");
  const shown = towns.filter((town) => matches(town, filter));
  return (
    <>
      <label htmlFor="filter">Filter by town or country</label>
      <input id="filter" type="search" value={filter} onChange={(event) => setFilter(event.target.value)} />
      <p role="status">{shown.length} towns</p>
      <ul>
        {shown.map((town) => (
          <TownItem key={`${town.country}/${town.name}`} town={town} />
        ))}
      </ul>
    </>
  );
}

function TownItem({ town }: { town: Town }) {
  return (
    <li data-town={town.name}>
      <strong>{town.name}</strong>
      <span>{town.country}</span>
      <span>{town.population.toLocaleString("en")} inhabitants</span>
    </li>
  );
}

function matches(town: Town, filter: string): boolean {
  return `${town.name} ${town.country}`.toLowerCase().includes(filter.trim().toLowerCase());
}
