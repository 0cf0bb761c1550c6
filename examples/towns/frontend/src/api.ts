const API_URL = import.meta.env.VITE_API_URL ?? "http://localhost:3000";

export interface Town {
  name: string;
  country: string;
  population: number;
  lat: number;
  lon: number;
}

export async function fetchTowns(signal: AbortSignal): Promise<Town[]> {
  const response = await fetch(`${API_URL}/api/v1/towns/selection`, { signal });
  if (!response.ok) {
    throw new Error(`the server answered ${response.status}`);
  }
  return response.json();
}
